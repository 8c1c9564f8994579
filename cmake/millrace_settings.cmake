# Compiler settings shared by every target, and the include tree: the build folder holds
# include/millrace/ with links to the source folders, so `#include "millrace/io/storage.h"` reads
# the same in the tree and in a project around it.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  set(CMAKE_CXX_FLAGS_RELEASE "-O2")
endif()
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# Paths are cached relative to the checkout: what two presets compile alike is compiled once, and
# another checkout finds it too.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
    "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" CCACHE_NOHASHDIR=1 "${CCACHE_PROGRAM}")
endif()

set(MILLRACE_INCLUDE_DIR "${PROJECT_BINARY_DIR}/include")
file(MAKE_DIRECTORY "${MILLRACE_INCLUDE_DIR}/millrace")
foreach(folder runtime events hooks io)
  file(CREATE_LINK
    "${PROJECT_SOURCE_DIR}/${folder}" "${MILLRACE_INCLUDE_DIR}/millrace/${folder}" SYMBOLIC)
endforeach()
file(CREATE_LINK
  "${PROJECT_SOURCE_DIR}/runtime/millrace.h" "${MILLRACE_INCLUDE_DIR}/millrace/millrace.h" SYMBOLIC)

add_library(millrace_settings INTERFACE)
target_include_directories(millrace_settings INTERFACE "${MILLRACE_INCLUDE_DIR}")
target_compile_options(millrace_settings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow=local -Wnon-virtual-dtor)
if(MILLRACE_WERROR)
  target_compile_options(millrace_settings INTERFACE -Werror)
endif()
if(MILLRACE_SANITIZE)
  set(sanitize_flags
    -fsanitize=${MILLRACE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  # Asio uses atomic_thread_fence, which GCC's thread sanitizer does not model and warns about. At
  # -O1 GCC 12 inlines only one of the pair with which Asio allocates coroutine frames, and takes
  # them for mismatched; under AddressSanitizer it takes std::regex for uninitialised.
  target_compile_options(millrace_settings INTERFACE
    ${sanitize_flags} -Wno-tsan -Wno-mismatched-new-delete -Wno-maybe-uninitialized)
  target_link_options(millrace_settings INTERFACE ${sanitize_flags})
endif()
