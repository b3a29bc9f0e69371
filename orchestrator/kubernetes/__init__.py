"""A sweep as Kubernetes objects: rendered for the KubeRay operator, and checked by the rules it would apply."""
