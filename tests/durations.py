"""What takes long, so that it begins first, and what ``make test-fast`` leaves to ``make test``."""

from __future__ import annotations

LONGEST = (
    "e2e/test_faults.py",
    "e2e/test_packs.py",
    "e2e/test_clusters.py",
    "e2e/test_stages.py",
    "e2e/test_resume.py",
    "e2e/test_commands.py",
    "e2e/test_recurrent.py",
    "e2e/test_terminals.py",
    "e2e/test_tracking_faults.py",
    "contracts/test_surroundings.py",
    "e2e/test_search.py",
    "e2e/test_readme.py",
    "contracts/test_tracking_faults.py",
    "unit/training/test_pack.py",
    "unit/models/test_recurrent.py",
    "unit/nn/test_mean_teacher.py",
    "golden/test_recurrent_numpy.py",
    "golden/test_rtagger_numpy.py",
    "golden/test_tagger_numpy.py",
    "e2e/test_reproduce.py",
    "e2e/test_slurm.py",
    "e2e/test_environment.py",
    "e2e/test_onprem.py",
)
"""Files that begin first, the longest at the top; all others follow in the order of collection."""

SLOW = frozenset(
    {
        # compile
        "test_a_compiled_member_agrees_with_itself_alone_compiled_and_eager",
        "test_a_program_does_what_its_function_did",
        "test_a_program_is_found_again_and_built_again_if_it_is_damaged",
        "test_compiled_and_eager_agree",
        "test_compiled_bf16_is_eager_bf16",
        "test_compiled_gradients_are_the_same",
        "test_compiled_steps_of_all_members_at_once_are_the_eager_ones",
        "test_draws_are_box_and_muller_of_splitmixs_words",
        "test_every_program_draws_the_same",
        "test_without_a_folder_a_program_is_made_all_the_same",
        # start interpreters or servers, or wait for what is not there
        "test_a_form_of_the_rival_that_fails_costs_the_others_nothing",
        "test_a_fresh_process_draws_the_same",
        "test_a_quick_run_prints_its_table_and_keeps_it",
        "test_a_server_that_answers",
        "test_a_server_that_says_nothing",
        "test_another_process_draws_the_same",
        "test_every_command_names_the_encoding_of_its_files",
        "test_the_same_seed_gives_the_same_suggestions_in_a_fresh_process",
        "test_the_upgrade_that_is_proposed_runs_as_it_is_printed",
        "test_the_wheel_holds_the_library_alone",
        "test_without_a_folder_torch_numpy_and_pyarrow_are_enough",
        # train
        "test_a_reproduction_that_was_killed_goes_on",
        "test_agree_with_themselves_alone",
        "test_costs_and_slopes_of_videos",
        "test_costs_slopes_and_states_of_music",
        "test_in_a_pack_of_eight",
        "test_in_a_slot_that_another_has_left",
        "test_is_reported_and_hurts_nobody",
        "test_joining_late",
        "test_moved_into_a_pack_of_another_size",
        "test_networks_for_music_of_either_family",
        "test_networks_have_the_sizes_that_the_reading_of_the_paper_has",
        "test_that_arrives_broken_and_is_replaced",
        "test_the_real_jpeg_images",
        "test_who_is_clearly_worse_gets_no_more_seeds",
    }
)
"""Functions of tests that take more than a few seconds each on a busy laptop: they are marked ``slow``."""
