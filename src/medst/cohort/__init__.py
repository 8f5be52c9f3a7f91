"""Raw data sets to a cohort on disk: one file a data set, over shared reports, images, store and sequences."""
