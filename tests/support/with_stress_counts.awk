# Passes ctest's output on, and puts what the stress tests counted above its summary.
#
# usage: ctest ... | awk -v tests=<LastTest.log> -f with_stress_counts.awk
function show_counts(  line) {
  while ((getline line < tests) > 0) if (line ~ /^stress: /) print line
  print ""
}
/tests passed, .* tests failed out of/ { held = 1 }
held { summary = summary $0 "\n"; next }
{ print; fflush() }
END {
  show_counts()
  printf "%s", summary
}
