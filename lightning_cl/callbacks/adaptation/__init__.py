"""Methods that adapt a trained model to domains without labels."""
