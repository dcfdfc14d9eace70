"""The published schemes in generalised coordinates: DEM and generalised filtering."""
