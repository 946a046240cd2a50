def f():
    return "ä"
