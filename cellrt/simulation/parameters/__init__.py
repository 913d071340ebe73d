"""Plain parameters of what is drawn and of the microscope; whatever draws takes them."""
