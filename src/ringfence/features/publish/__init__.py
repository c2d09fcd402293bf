"""The list of banned networks for routers: ``[publish]``, served with the metrics."""
