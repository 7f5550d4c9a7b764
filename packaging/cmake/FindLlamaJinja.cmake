# llama.cpp's Jinja engine, compiled from the source that packaging/setup.sh fetches.
#
#   LLAMA_JINJA_ROOT  folder that holds jinja/ and unicode.cpp (llama.cpp's "common" folder serves too)
#
# Gives LlamaJinja::LlamaJinja (include "jinja/runtime.h", "jinja/parser.h") and LlamaJinja_INCLUDE_DIRS.
set(LLAMA_JINJA_ROOT "" CACHE PATH "llama.cpp's Jinja engine: the folder with jinja/ and unicode.cpp")
set(_root "${LLAMA_JINJA_ROOT}")
if(NOT _root)
  set(_home "$ENV{QBENCH_DEPS}")
  if(NOT _home)
    set(_home "$ENV{HOME}/.cache/llm-qbench")
  endif()
  set(_root "${_home}/llama-jinja")
endif()

find_path(LlamaJinja_INCLUDE_DIR jinja/runtime.h PATHS "${_root}" NO_DEFAULT_PATH NO_CACHE)
get_filename_component(_here "${CMAKE_CURRENT_LIST_DIR}/../llama-jinja" ABSOLUTE)
set(LlamaJinja_INCLUDE_DIRS "${_here}" "${LlamaJinja_INCLUDE_DIR}")
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LlamaJinja REQUIRED_VARS LlamaJinja_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "packaging/setup.sh fetches it")
if(LlamaJinja_FOUND AND NOT TARGET LlamaJinja::LlamaJinja)
  add_library(llama_jinja STATIC
    "${_root}/jinja/lexer.cpp" "${_root}/jinja/parser.cpp" "${_root}/jinja/runtime.cpp" "${_root}/jinja/string.cpp"
    "${_root}/jinja/value.cpp" "${_root}/unicode.cpp")
  target_compile_features(llama_jinja PUBLIC cxx_std_20)
  target_compile_options(llama_jinja PRIVATE -w)
  set_target_properties(llama_jinja PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_include_directories(llama_jinja SYSTEM PUBLIC ${LlamaJinja_INCLUDE_DIRS})
  target_link_libraries(llama_jinja PUBLIC nlohmann_json::nlohmann_json)
  add_library(LlamaJinja::LlamaJinja ALIAS llama_jinja)
endif()
