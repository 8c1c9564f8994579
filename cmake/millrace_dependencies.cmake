# System libraries come from the distribution; `make setup` installs them. Their targets are known to
# this project alone: one around it links what is found here and may define the same names itself.
find_package(Threads REQUIRED)
find_package(spdlog REQUIRED)
find_package(cereal REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)

find_path(ASIO_INCLUDE_DIR asio/awaitable.hpp REQUIRED)
add_library(millrace_asio INTERFACE)
# Header-only and without a configuration macro: hosts may use Asio themselves.
target_include_directories(millrace_asio SYSTEM INTERFACE "${ASIO_INCLUDE_DIR}")
target_link_libraries(millrace_asio INTERFACE Threads::Threads)

find_path(ISAL_INCLUDE_DIR isa-l/crc.h REQUIRED)
find_library(ISAL_LIBRARY isal REQUIRED)
add_library(millrace_isal INTERFACE)
target_include_directories(millrace_isal SYSTEM INTERFACE "${ISAL_INCLUDE_DIR}")
target_link_libraries(millrace_isal INTERFACE "${ISAL_LIBRARY}")

# Who only runs the examples needs no test framework.
find_package(GTest QUIET)
set(build_tests OFF)
if(PROJECT_IS_TOP_LEVEL AND GTest_FOUND)
  set(build_tests ON)
endif()
option(MILLRACE_TESTS "Build the tests" ${build_tests})
if(MILLRACE_TESTS AND NOT GTest_FOUND)
  message(FATAL_ERROR "GoogleTest not found. Run 'cmake/setup.sh run test'.")
endif()
if(MILLRACE_TESTS AND NOT MILLRACE_EXAMPLES AND MILLRACE_TORCH)
  message(FATAL_ERROR "The tests run the examples: MILLRACE_TESTS needs MILLRACE_EXAMPLES.")
endif()

if(MILLRACE_TORCH)
  include(millrace_torch)
endif()
