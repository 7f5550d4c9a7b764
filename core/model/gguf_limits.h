#pragma once
#include <string>

#include "core/model/architecture.h"

namespace qb {

// What llama.cpp cannot load or compute of a model that GGUF can say, as of October 2026; empty: nothing that is known. arch:
// general.architecture. tests/conformance/test_gguf_export.py tries what it can.
std::string llama_cpp_limit(const std::string& arch, const Architecture& a);

// Whether llama.cpp attends to everything although a window is said.
bool llama_cpp_ignores_window(const std::string& arch);

}  // namespace qb
