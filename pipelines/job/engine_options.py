"""Options of the engines' job servers that Beam for Python does not register.

What `DescribePipelineOptions` of Beam 2.77's job servers for Flink and Spark answers, without the
names that PipelineOptions has already. A server tells them only when it is running, which is too
late for a message about a misspelt flag.
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FLINK_VALUES = _names(
    """
    auto_watermark_interval avro_serializable_classes checkpoint_timeout_millis
    checkpointing_interval checkpointing_mode execution_mode_for_batch execution_retry_delay
    file_input_split_max_size_m_b flink_conf_dir jdk_add_root_modules
    job_check_interval_in_secs latency_tracking_interval max_bundle_size max_bundle_time_mills
    min_pause_between_checkpoints num_concurrent_checkpoints number_of_execution_retries
    open_telemetry open_telemetry_properties remote_heap_dump_location
    report_checkpoint_duration savepoint_path shutdown_sources_after_idle_ms state_backend
    state_backend_factory state_backend_storage_path
    """
)
FLINK_SWITCHES = _names(
    """
    allow_non_restored_state attached_mode auto_balance_write_files_sharding_enabled
    disable_metrics enable_log_via_fn_api enable_stable_input_drain
    externalized_checkpoints_enabled fail_on_checkpointing_errors faster_copy
    finish_bundle_before_checkpointing force_slot_sharing_group
    force_unaligned_checkpoint_enabled gzip_compress_heap_dumps object_reuse operator_chaining
    re_iterable_group_by_key_result retain_externalized_checkpoints_on_cancellation
    unaligned_checkpoint_enabled use_data_stream_for_batch
    """
)
SPARK_VALUES = _names(
    """
    batch_interval_millis bundle_size checkpoint_dir checkpoint_duration_millis
    max_records_per_batch min_read_time_millis read_time_percentage spark_master storage_level
    streaming_timeout_ms
    """
)
SPARK_SWITCHES = _names(
    """
    cache_disabled enable_spark_metric_sinks test_mode use_active_spark_session
    uses_provided_spark_context
    """
)
# Of both: what every Java pipeline has.
JAVA_VALUES = _names(
    """
    app_name bundle_processor_cache_timeout credential_factory_class
    default_environment_config default_environment_type environment_expiration_millis
    executor_service g_c_thrashing_percentage_per_period gcp_credential gcp_temp_location
    gcs_endpoint gcs_http_request_read_timeout gcs_http_request_write_timeout
    gcs_read_counter_prefix gcs_rewrite_data_op_batch_limit gcs_upload_buffer_size_bytes
    gcs_util gcs_write_counter_prefix google_api_trace google_cloud_storage_read_options
    grouping_table_max_size_mb jdk_add_open_modules max_cache_memory_usage_mb_class
    max_cache_memory_usage_percent options_id path_validator path_validator_class
    semi_persist_dir stable_unique_names transform_service_address
    transform_service_beam_version transforms_to_override
    """
)
JAVA_SWITCHES = _names(
    """
    enable_heap_dumps gcs_performance_metrics load_balance_bundles log_mdc
    retain_docker_containers
    """
)

# By runner: flags that take a value, and flags that take none. The server of a portable runner may
# be any.
OF_RUNNER = {
    "FlinkRunner": (FLINK_VALUES + JAVA_VALUES, FLINK_SWITCHES + JAVA_SWITCHES),
    "SparkRunner": (SPARK_VALUES + JAVA_VALUES, SPARK_SWITCHES + JAVA_SWITCHES),
    "PortableRunner": (
        FLINK_VALUES + SPARK_VALUES + JAVA_VALUES,
        FLINK_SWITCHES + SPARK_SWITCHES + JAVA_SWITCHES,
    ),
}
