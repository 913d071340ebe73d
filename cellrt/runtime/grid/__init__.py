"""An image on the model's grid."""
