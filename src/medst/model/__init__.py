"""The encoders: views of a pair, reports, and the projections of both. They know no data set and no loss."""
