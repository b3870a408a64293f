"""Methods that classify features: by class means, covariances, ridge regression, or pairs of keys and values."""
