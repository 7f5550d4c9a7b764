# libtorch from PyPI's torch wheel or from any other libtorch, without the wheel's demand for a CUDA toolkit.
#
#   LIBTORCH_ROOT  folder that holds include/ and lib/ (the wheel's "torch" folder, or an unpacked libtorch)
#
# Gives Libtorch::headers (include paths only) and Libtorch::Libtorch (torch_cpu and c10; CUDA is loaded at run time).
set(LIBTORCH_ROOT "" CACHE PATH "libtorch: the folder with include/ and lib/")
if(NOT LIBTORCH_ROOT)
  set(_home "$ENV{QBENCH_DEPS}")
  if(NOT _home)
    set(_home "$ENV{HOME}/.cache/llm-qbench")
  endif()
  file(GLOB _candidates "${_home}/venv/lib/python3*/site-packages/torch")
  if(_candidates)
    list(GET _candidates 0 LIBTORCH_ROOT)
  endif()
endif()

find_path(Libtorch_INCLUDE_DIR ATen/ATen.h HINTS "${LIBTORCH_ROOT}/include" NO_CACHE)
find_path(Libtorch_API_INCLUDE_DIR torch/torch.h HINTS "${LIBTORCH_ROOT}/include/torch/csrc/api/include" NO_CACHE)
find_library(Libtorch_CPU_LIBRARY torch_cpu HINTS "${LIBTORCH_ROOT}/lib" NO_CACHE)
find_library(Libtorch_C10_LIBRARY c10 HINTS "${LIBTORCH_ROOT}/lib" NO_CACHE)
if(Libtorch_INCLUDE_DIR AND EXISTS "${Libtorch_INCLUDE_DIR}/torch/headeronly/version.h")
  set(_version_file "${Libtorch_INCLUDE_DIR}/torch/headeronly/version.h")
elseif(Libtorch_API_INCLUDE_DIR)
  set(_version_file "${Libtorch_API_INCLUDE_DIR}/torch/version.h")
endif()
if(_version_file)
  file(STRINGS "${_version_file}" _lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX REPLACE "[^0-9]+([0-9]+)[^0-9]+([0-9]+)[^0-9]+([0-9]+).*" "\\1.\\2.\\3" Libtorch_VERSION "${_lines}")
endif()

# at::parallel_for lives in a header and runs on one thread unless OpenMP is on where it is compiled. The runtime must be
# libtorch's own: a second one would bring a second pool of threads.
get_filename_component(_lib "${Libtorch_CPU_LIBRARY}" DIRECTORY)
file(GLOB _openmp "${_lib}/libgomp*.so*" "${_lib}/libiomp5.so" "${_lib}/libomp.so")
if(_openmp)
  list(GET _openmp 0 Libtorch_OPENMP_LIBRARY)
else()
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  set(Libtorch_OPENMP_LIBRARY OpenMP::OpenMP_CXX)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Libtorch
  REQUIRED_VARS Libtorch_CPU_LIBRARY Libtorch_C10_LIBRARY Libtorch_INCLUDE_DIR Libtorch_API_INCLUDE_DIR
  VERSION_VAR Libtorch_VERSION
  REASON_FAILURE_MESSAGE "run packaging/setup.sh, or set LIBTORCH_ROOT to a libtorch of version 2.11 or newer")

if(Libtorch_FOUND AND NOT TARGET Libtorch::Libtorch)
  add_library(Libtorch::headers INTERFACE IMPORTED)
  set_target_properties(Libtorch::headers PROPERTIES
    INTERFACE_COMPILE_OPTIONS "-fopenmp"
    INTERFACE_INCLUDE_DIRECTORIES "${Libtorch_INCLUDE_DIR};${Libtorch_API_INCLUDE_DIR}"
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${Libtorch_INCLUDE_DIR};${Libtorch_API_INCLUDE_DIR}")
  add_library(Libtorch::Libtorch INTERFACE IMPORTED)
  # libtorch_cpu.so links cupti and cudart, which live in sibling wheels that its own RUNPATH finds.
  file(GLOB _siblings "${LIBTORCH_ROOT}/../nvidia/cu*/lib" "${LIBTORCH_ROOT}/../nvidia/cuda_*/lib")
  set(_rpath_links "")
  foreach(_dir IN LISTS _siblings)
    get_filename_component(_dir "${_dir}" REALPATH)
    list(APPEND _rpath_links "-Wl,-rpath-link,${_dir}")
  endforeach()
  set_target_properties(Libtorch::Libtorch PROPERTIES
    INTERFACE_LINK_LIBRARIES "Libtorch::headers;${Libtorch_CPU_LIBRARY};${Libtorch_C10_LIBRARY};${Libtorch_OPENMP_LIBRARY}"
    INTERFACE_LINK_OPTIONS "-Wl,-rpath,${_lib};${_rpath_links}")
endif()
