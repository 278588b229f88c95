"""Files that the build adds to the package."""
