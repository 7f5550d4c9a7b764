#pragma once
#include <nlohmann/json.hpp>

// llama.cpp's Jinja engine asks for a JSON type of this name, with keys in their order.
using common_json = nlohmann::ordered_json;
