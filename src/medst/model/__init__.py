"""The encoders: views of a pair, reports, and the projections of both. They depend on no data set and no loss."""
