"""Benchmark data folders from archives or folders the user has: ADE20K, COCO-Stuff 164k, COCO. Downloads nothing."""
