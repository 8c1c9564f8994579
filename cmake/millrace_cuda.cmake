# CUDA is on where its toolkit is. The device layer needs the runtime alone, so it is built and tested
# without LibTorch, too. -DMILLRACE_CUDA=OFF builds as on a machine without it.
find_package(CUDAToolkit QUIET)
option(MILLRACE_CUDA "Build the CUDA back-end" ${CUDAToolkit_FOUND})
if(MILLRACE_CUDA AND NOT CUDAToolkit_FOUND)
  message(FATAL_ERROR "MILLRACE_CUDA is on and no CUDA toolkit was found: put its nvcc on PATH, or "
                      "configure with -DMILLRACE_CUDA=OFF.")
endif()
if(MILLRACE_CUDA)
  message(STATUS "CUDA: on, toolkit ${CUDAToolkit_VERSION} (${CUDAToolkit_NVCC_EXECUTABLE})")
  # Our few kernels: host code by the compiler of everything else, one runtime with LibTorch.
  if(NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER "${CUDAToolkit_NVCC_EXECUTABLE}")
  endif()
  if(NOT CMAKE_CUDA_HOST_COMPILER)
    set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  enable_language(CUDA)
  # The standard of the rest (CMAKE_CXX_STANDARD), which CMake before 3.26 does not know for nvcc.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
else()
  message(STATUS "CUDA: off, no toolkit")
endif()
