"""Operations: how the listeners' sources are doing, in the Prefect UI."""
