"""A sweep as Kubernetes objects: rendered for the KubeRay operator, and checked against the rules it would apply."""
