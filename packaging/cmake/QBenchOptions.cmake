# Build-wide settings: language, warnings, linker, sanitizers, compiler cache.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()

option(QBENCH_GUI "Build the desktop workbench" ON)
option(QBENCH_WERROR "Treat warnings as errors" ON)
set(QBENCH_SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined")

# Line tables are enough for backtraces and keep objects small.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")

find_program(QBENCH_CCACHE ccache)
if(QBENCH_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${QBENCH_CCACHE})
endif()
find_program(QBENCH_MOLD mold)
if(QBENCH_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Our own targets only, so that libraries' headers stay silent.
add_library(qbench_options INTERFACE)
target_compile_options(qbench_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wno-missing-field-initializers -fpch-preprocess)
if(QBENCH_WERROR)
  target_compile_options(qbench_options INTERFACE -Werror)
endif()
if(QBENCH_SANITIZE)
  # A finding ends the program: a test that only prints one would pass.
  # GCC sees uninitialised values in its own library's headers once they are instrumented.
  target_compile_options(qbench_options INTERFACE -fsanitize=${QBENCH_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -Wno-maybe-uninitialized)
  target_compile_definitions(qbench_options INTERFACE _GLIBCXX_ASSERTIONS)
  target_link_options(qbench_options INTERFACE -fsanitize=${QBENCH_SANITIZE})
endif()
