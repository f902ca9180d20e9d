"""What a person reads afterwards: metrics, figures, the model card."""
