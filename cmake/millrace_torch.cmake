# LibTorch as own imported targets: find_package(Torch) of a CUDA wheel runs a CUDA set-up of its own
# and fails where only parts of the toolkit are installed. TORCH_ROOT is the folder that holds
# include/ and lib/ (for a Python package: <site-packages>/torch).
set(TORCH_ROOT "$ENV{TORCH_ROOT}" CACHE PATH "Folder with LibTorch's include/ and lib/")
if(NOT EXISTS "${TORCH_ROOT}/include/ATen/core/Tensor.h")
  message(FATAL_ERROR "LibTorch not found: TORCH_ROOT is '${TORCH_ROOT}'. Run 'make setup', or set TORCH_ROOT "
                      "to a folder with include/ and lib/, or configure with -DMILLRACE_TORCH=OFF.")
endif()
add_library(millrace_libtorch INTERFACE)
target_include_directories(millrace_libtorch SYSTEM INTERFACE
  "${TORCH_ROOT}/include" "${TORCH_ROOT}/include/torch/csrc/api/include")
target_link_directories(millrace_libtorch INTERFACE "${TORCH_ROOT}/lib")
target_link_libraries(millrace_libtorch INTERFACE torch torch_cpu c10)
target_link_options(millrace_libtorch INTERFACE "-Wl,-rpath,${TORCH_ROOT}/lib" "-Wl,--disable-new-dtags")
