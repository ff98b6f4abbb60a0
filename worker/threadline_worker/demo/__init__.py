"""`threadline demo`: the main job end to end on real servers, with a worker killed in the middle of it."""
