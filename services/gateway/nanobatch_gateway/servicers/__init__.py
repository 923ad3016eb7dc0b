"""The public services: translate, call one use case, translate back."""
