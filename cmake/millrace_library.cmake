# millrace_library(<name> SOURCES <files...> [DEPENDS <targets...>] [PRIVATE_DEPENDS <targets...>])
# One static library per folder. DEPENDS are the arrows of the layer picture in CONTRIBUTING.md; a
# test holds the includes against them.
function(millrace_library name)
  cmake_parse_arguments(LIB "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  add_library(${name} STATIC ${LIB_SOURCES})
  target_link_libraries(${name}
    PUBLIC ${LIB_DEPENDS} PRIVATE millrace_settings ${LIB_PRIVATE_DEPENDS})
  target_include_directories(${name} PUBLIC "${MILLRACE_INCLUDE_DIR}")
  target_compile_features(${name} PUBLIC cxx_std_20)
endfunction()

# millrace_test(<name> SOURCES <files...> DEPENDS <targets...> [TIMEOUT <s>] [ENVIRONMENT <k=v...>]
#               [STRESS] [OPTIMIZED])
# One GoogleTest binary, one ctest entry. STRESS: it counts by tests/support/stress.h, has the label
# `stress`, and its time limit is ctest's, which `make stress` raises. OPTIMIZED: under the sanitizers
# too, because it computes much itself.
function(millrace_test name)
  cmake_parse_arguments(TEST "STRESS;OPTIMIZED" "TIMEOUT" "SOURCES;DEPENDS;ENVIRONMENT" ${ARGN})
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 300)
  endif()
  if(MILLRACE_SANITIZE)  # ten times slower, and both cores may be busy
    math(EXPR TEST_TIMEOUT "3 * ${TEST_TIMEOUT}")
  endif()
  add_executable(${name} ${TEST_SOURCES})
  target_link_libraries(${name}
    PRIVATE millrace_settings ${TEST_DEPENDS} GTest::gmock GTest::gtest_main)
  # The expectations, not what they test: a third less to compile.
  if(MILLRACE_SANITIZE AND NOT TEST_OPTIMIZED)
    target_compile_options(${name} PRIVATE -O0)
  endif()
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "${TEST_ENVIRONMENT}")
  if(TEST_STRESS)
    target_sources(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests/support/stress.cc")
    set_tests_properties(${name} PROPERTIES LABELS stress)
  else()
    set_tests_properties(${name} PROPERTIES TIMEOUT ${TEST_TIMEOUT})
  endif()
endfunction()

# millrace_gpu_test(...), as millrace_test: for the real runtime of a GPU. Where there is none every
# test of it skips, with the reason. `make gpu-test` builds the target and runs the label. One at a
# time, because each takes the memory it finds.
function(millrace_gpu_test name)
  millrace_test(${name} ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS gpu RESOURCE_LOCK gpu)
  add_dependencies(millrace_gpu_tests ${name})
endfunction()

# millrace_benchmark(<name> SOURCES <files...> DEPENDS <targets...>): a program that `make bench`
# builds and runs as `<name> <raw.json>`. It prints its table and writes rows and samples there
# (tests/bench/results.h).
function(millrace_benchmark name)
  cmake_parse_arguments(BENCH "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${BENCH_SOURCES})
  target_link_libraries(${name} PRIVATE millrace_settings millrace_bench_results ${BENCH_DEPENDS})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/benchmarks")
  add_dependencies(millrace_benchmarks ${name})
endfunction()

# millrace_bench_worker(...), as millrace_benchmark: Millrace's side of a benchmark in Python, which
# starts it and speaks with it over pipes (tests/bench/harness.py). `make bench` only builds it.
function(millrace_bench_worker name)
  millrace_benchmark(${name} ${ARGN})
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/workers")
endfunction()
