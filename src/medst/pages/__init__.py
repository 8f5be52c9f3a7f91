"""Every HTML page that is written to a file: `report` shows runs and their results, `inspect` a cohort."""
