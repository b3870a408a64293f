"""Methods that change gradients or steps so that earlier tasks do not lose by them."""
