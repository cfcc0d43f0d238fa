"""Problems to train on: model, data, loss and metric, one file a problem."""
