rule figures:
    message:
        "All figures are there"
    input:
        [],
