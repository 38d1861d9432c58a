"""The kinds of values that parameters take: what json.loads makes of them, and OpenAI's words for them."""

NUMBER, COUNT = ((int, float), "a decimal"), (int, "an integer")
TEXT, SWITCH = (str, "a string"), (bool, "a boolean")
OBJECT, ARRAY = (dict, "an object"), (list, "an array")
TOOL_CHOICE = ((str, dict), "a tool choice")
