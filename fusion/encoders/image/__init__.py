"""Picture encoders of transformers and torchvision, and the way from encoded pictures to their input."""
