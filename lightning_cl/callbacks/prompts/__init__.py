"""Methods that train prompts in a frozen ViT, and the regularisation of their heads."""
