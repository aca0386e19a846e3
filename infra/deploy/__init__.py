"""How Barycenter is deployed: Prefect's deployments, the container image, KubeRay's manifests."""
