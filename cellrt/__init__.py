"""3D cell segmentation where the microscope is."""

__version__ = "0.1.0"
