# millrace_mutant(<name> SOURCE <file of ours> OLD <text> NEW <text>
#                 SOURCES <files...> DEPENDS <targets...> ARGUMENTS <arguments...>)
# A program of which one of our own sources is changed, and a test that runs it: it shows that a
# search finds such a defect. OLD is exact text that is in the file once; when it is not, the
# configuration fails, so a mutant cannot silently become the original. The changed copy is an object
# of the program, so the linker does not take the library's. The program itself decides: it succeeds
# when it finds a fault of a kind that its arguments name; a crash or a time-out is none.
function(millrace_mutant name)
  cmake_parse_arguments(PARSE_ARGV 1 MUTANT "" "SOURCE;OLD;NEW" "SOURCES;DEPENDS;ARGUMENTS")
  set(original "${PROJECT_SOURCE_DIR}/${MUTANT_SOURCE}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${original}")
  file(READ "${original}" text)
  string(FIND "${text}" "${MUTANT_OLD}" first)
  string(FIND "${text}" "${MUTANT_OLD}" last REVERSE)
  if(MUTANT_OLD STREQUAL "" OR first EQUAL -1 OR NOT first EQUAL last)
    message(FATAL_ERROR "${name}: this text is not in ${MUTANT_SOURCE} exactly once:\n${MUTANT_OLD}")
  endif()
  string(REPLACE "${MUTANT_OLD}" "${MUTANT_NEW}" text "${text}")
  get_filename_component(stem "${MUTANT_SOURCE}" NAME)
  set(copy "${CMAKE_CURRENT_BINARY_DIR}/mutants/${name}/${stem}")
  file(CONFIGURE OUTPUT "${copy}" CONTENT "@text@" @ONLY)  # touched only when it differs
  add_executable(${name} ${MUTANT_SOURCES} "${copy}")
  target_link_libraries(${name} PRIVATE millrace_settings ${MUTANT_DEPENDS})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name} ${MUTANT_ARGUMENTS})
  set_tests_properties(${name} PROPERTIES TIMEOUT 300 LABELS stress)
endfunction()
