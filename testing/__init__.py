"""What tests and benchmarks share, so that neither imports the other. Where to look:

* trainings small enough for an oracle: `problems`, `samples`, `simulator`, `language_models`,
  `zoo_layers`, `zoo_models`;
* oracles: `oracles` (naive autograd, finite differences), `exactness_zoo`, `count_scales`, `arities`, `paired_ratios`;
* small catalogs: `small_catalog` (pairs), `small_texts`, `small_study`, `embedded_clip`, `manifests` (of older homes);
* pools as strangers leave them: `field_pool` with `field_case` and `field_cases/`, `datacomp_pool`, `eval_set_files`,
  `eval_lines`, `sample_members`, `whole_census`;
* what breaks: `defects`, `hostile_pool`, `fuzzing`, `faulty_proxy`, `loopback_s3`, `children` (processes to be killed);
* the code itself: `house` (who imports whom), `catalog_reference` (docs/catalog.md).
"""
