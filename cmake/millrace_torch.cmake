# LibTorch as own imported targets: find_package(Torch) of a CUDA wheel runs a CUDA set-up of its
# own and fails where only parts of the toolkit are installed. TORCH_ROOT is the folder that holds
# include/ and lib/ (for a Python package: <site-packages>/torch).
if(NOT EXISTS "${TORCH_ROOT}/include/ATen/core/Tensor.h")
  message(FATAL_ERROR "LibTorch not found: TORCH_ROOT is '${TORCH_ROOT}'. Run 'make setup', or set "
                      "TORCH_ROOT to a folder with include/ and lib/, or configure with "
                      "-DMILLRACE_TORCH=OFF.")
endif()
set(TORCH_VERSION "")
set(torch_version_file "${TORCH_ROOT}/include/torch/headeronly/version.h")
if(NOT EXISTS "${torch_version_file}")  # the place of older releases
  set(torch_version_file "${TORCH_ROOT}/include/torch/csrc/api/include/torch/version.h")
endif()
if(EXISTS "${torch_version_file}")
  foreach(part MAJOR MINOR PATCH)
    file(STRINGS "${torch_version_file}" line REGEX "define TORCH_VERSION_${part} ")
    string(REGEX MATCH "[0-9]+$" number "${line}")
    list(APPEND TORCH_VERSION "${number}")
  endforeach()
  list(JOIN TORCH_VERSION "." TORCH_VERSION)
endif()
if(TORCH_VERSION VERSION_LESS 2.8)
  message(FATAL_ERROR "LibTorch in ${TORCH_ROOT} is '${TORCH_VERSION}'; 2.8 or newer is needed.")
endif()
set(MILLRACE_TORCH_CUDA OFF)
if(EXISTS "${TORCH_ROOT}/lib/libtorch_cuda.so" AND EXISTS "${TORCH_ROOT}/lib/libc10_cuda.so")
  set(MILLRACE_TORCH_CUDA ON)
endif()
message(STATUS "LibTorch: ${TORCH_VERSION} in ${TORCH_ROOT}, CUDA: ${MILLRACE_TORCH_CUDA}")

add_library(millrace_libtorch INTERFACE)
target_include_directories(millrace_libtorch SYSTEM INTERFACE
  "${TORCH_ROOT}/include" "${TORCH_ROOT}/include/torch/csrc/api/include")
target_link_directories(millrace_libtorch INTERFACE "${TORCH_ROOT}/lib")
target_link_libraries(millrace_libtorch INTERFACE torch torch_cpu c10)
if(MILLRACE_TORCH_CUDA)
  target_link_libraries(millrace_libtorch INTERFACE torch_cuda c10_cuda)
endif()
target_link_options(millrace_libtorch INTERFACE
  "-Wl,-rpath,${TORCH_ROOT}/lib" "-Wl,--disable-new-dtags")
