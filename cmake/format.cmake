# SPDX-License-Identifier: Apache-2.0
# Targets `format` (rewrite) and `format-check` (complain) over all C of the tree.
# The files are listed when a target runs, so that new ones count at once.
#
#   cmake --build --preset default --target format-check
if(CMAKE_SCRIPT_MODE_FILE)
    set(options -i)
    if(MODE STREQUAL format-check)
        set(options --dry-run -Werror)
    endif()
    file(GLOB_RECURSE sources RELATIVE ${SOURCE_DIR}
        ${SOURCE_DIR}/src/*.[ch] ${SOURCE_DIR}/tests/c/*.[ch]
        ${SOURCE_DIR}/benchmarks/*.[ch])
    execute_process(
        COMMAND ${CLANG_FORMAT} ${options} ${sources}
        WORKING_DIRECTORY ${SOURCE_DIR}
        RESULT_VARIABLE failed)
    if(failed)
        message(FATAL_ERROR "some files are not formatted: build the target `format`")
    endif()
    return()
endif()

find_program(CLANG_FORMAT clang-format)
if(NOT CLANG_FORMAT)
    return()
endif()
foreach(target format format-check)
    add_custom_target(${target}
        COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR}
            -DCLANG_FORMAT=${CLANG_FORMAT} -DMODE=${target}
            -P ${CMAKE_CURRENT_LIST_FILE}
        VERBATIM)
endforeach()
