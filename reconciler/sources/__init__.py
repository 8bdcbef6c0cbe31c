"""Where code comes from: commits, objects, uploads, web servers, and the update mirror."""
