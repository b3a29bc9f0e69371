"""Files: a sweep's folder, its copy in an object store, logs with checksums, locks, full disks."""
