"""What a sweep file says, checked and resolved: the ground that every other room stands on."""
