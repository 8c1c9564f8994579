# millrace_library(<name> SOURCES <files...> [DEPENDS <targets...>] [PRIVATE_DEPENDS <targets...>])
# One static library per folder. DEPENDS are the arrows of the layer picture in CONTRIBUTING.md; a
# test holds the includes against them.
function(millrace_library name)
  cmake_parse_arguments(LIB "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  add_library(${name} STATIC ${LIB_SOURCES})
  target_link_libraries(${name}
    PUBLIC ${LIB_DEPENDS} PRIVATE millrace_settings ${LIB_PRIVATE_DEPENDS})
  target_include_directories(${name} PUBLIC "${MILLRACE_INCLUDE_DIR}")
endfunction()

# millrace_test(<name> SOURCES <files...> DEPENDS <targets...> [TIMEOUT <s>] [ENVIRONMENT <k=v...>])
# One GoogleTest binary, one ctest entry.
function(millrace_test name)
  cmake_parse_arguments(TEST "" "TIMEOUT" "SOURCES;DEPENDS;ENVIRONMENT" ${ARGN})
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 300)
  endif()
  add_executable(${name} ${TEST_SOURCES})
  target_link_libraries(${name}
    PRIVATE millrace_settings ${TEST_DEPENDS} GTest::gmock GTest::gtest_main)
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES
    TIMEOUT ${TEST_TIMEOUT} ENVIRONMENT "${TEST_ENVIRONMENT}")
endfunction()

# millrace_benchmark(<name> SOURCES <files...> DEPENDS <targets...>): a program that `make bench`
# builds and runs as `<name> <raw.json>`. It prints its table and writes every measurement there.
add_custom_target(millrace_benchmarks)
function(millrace_benchmark name)
  cmake_parse_arguments(BENCH "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${BENCH_SOURCES})
  target_link_libraries(${name} PRIVATE millrace_settings ${BENCH_DEPENDS})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}")
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/benchmarks")
  add_dependencies(millrace_benchmarks ${name})
endfunction()
