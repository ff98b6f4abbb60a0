"""What the calls of a client do, one role a file; `threadline.client` is their public face."""
