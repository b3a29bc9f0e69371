"""The content of a sweep file, checked and resolved: the basis of all other packages."""
