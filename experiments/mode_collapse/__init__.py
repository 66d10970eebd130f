"""Which GAN losses lose modes of a mixture."""
