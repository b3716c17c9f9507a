"""Operations: see how far data imports have come, and put their cursors elsewhere."""
