%%% Carries XEP-0045 room traffic across a server-to-server link once, instead of once for each
%%% occupant behind it.
-module(mod_dmuc).
-behaviour(gen_mod).

-protocol({xep, 45, '1.34.3'}).

%% gen_mod callbacks
-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).
%% Hooks
-export([add_hooks/1, delete_hooks/1, ejabberd_stopping/0]).
%% Commands
-export([dmuc_status/1, dmuc_counters/1]).
%% For the other modules
-export([now/0, seed/0, fault/2]).

-compile({no_auto_import, [now/0]}).

-include("logger.hrl").
-include("ejabberd_commands.hrl").

%% The reason why the native library does not serve, once it has been told.
-define(TOLD, {?MODULE, told}).
-define(FAULTS, {?MODULE, faults}).

%%%===================================================================
%%% gen_mod callbacks
%%%===================================================================

%% Without its library the module does nothing, and rooms work as they do without the module.
-spec start(binary(), gen_mod:opts()) -> ok | {ok, pid()}.
start(Host, Opts) ->
    case mod_dmuc_nif:check() of
        ok ->
            %% An upgrade of the package takes the files away while the server runs.
            _ = code:ensure_modules_loaded([mod_dmuc_opts, mod_dmuc_primary, mod_dmuc_replica,
                                            mod_dmuc_store, mod_dmuc_xml]),
            case mod_dmuc_server:start(Host, Opts) of
                {ok, Pid} ->
                    ejabberd_commands:register_commands(commands()),
                    {ok, Pid};
                {error, Reason} ->
                    ?ERROR_MSG("mod_dmuc does not start on ~ts, rooms work without it: ~p",
                               [Host, Reason]),
                    ok
            end;
        {error, Text} ->
            tell_once(Text),
            ok
    end.

-spec stop(binary()) -> ok.
stop(Host) ->
    case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
        true -> ok;
        false -> ejabberd_commands:unregister_commands(commands())
    end,
    mod_dmuc_server:stop(Host).

%% Options belong to the links, so all of them end and come back.
-spec reload(binary(), gen_mod:opts(), gen_mod:opts()) -> ok.
reload(Host, NewOpts, _OldOpts) ->
    mod_dmuc_server:stop(Host),
    _ = start(Host, NewOpts),
    ok.

-spec depends(binary(), gen_mod:opts()) -> [{module(), hard | soft}].
depends(_Host, _Opts) ->
    [{mod_muc, soft}, {mod_muc_admin, soft}].

%%%===================================================================
%%% Hooks
%%%===================================================================
-type hook() :: {Name :: atom(), Host :: binary() | global, module(), Function :: atom(),
                 Priority :: integer()}.

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{multicast_route, Host, mod_dmuc_primary, multicast_route, 90},
     %% Before the modules that answer IQs: markers are for us alone.
     {muc_process_iq, Host, mod_dmuc_primary, muc_process_iq, 1},
     {leave_room, Host, mod_dmuc_primary, leave_room, 90},
     {room_destroyed, Host, mod_dmuc_primary, room_destroyed, 90},
     %% After the modules that count and before those that judge content.
     {s2s_receive_packet, Host, mod_dmuc_replica, s2s_receive_packet, 30},
     {s2s_send_packet, Host, mod_dmuc_replica, s2s_send_packet, 90},
     {sm_remove_connection_hook, Host, mod_dmuc_replica, sm_remove_connection_hook, 90},
     {s2s_out_closed, Host, mod_dmuc_primary, s2s_out_closed, 110},
     {s2s_out_handle_info, Host, mod_dmuc_primary, s2s_out_handle_info, 50},
     {disco_local_features, Host, mod_dmuc_replica, disco_local_features, 90}].

%% Of the node; kept until the last virtual host has gone.
-spec global_hooks() -> [hook()].
global_hooks() ->
    %% After every module that changes or drops stanzas.
    [{filter_packet, global, mod_dmuc_primary, filter_packet, 100},
     %% Streams are still up then, unlike in stop/1.
     {ejabberd_stopping, global, ?MODULE, ejabberd_stopping, 10}].

-spec add_hooks(binary()) -> ok.
add_hooks(Host) ->
    lists:foreach(fun({Hook, H, Module, Function, Priority}) ->
                          ejabberd_hooks:add(Hook, H, Module, Function, Priority)
                  end, hooks(Host) ++ global_hooks()).

-spec delete_hooks(binary()) -> ok.
delete_hooks(Host) ->
    Global = case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
                 true -> [];
                 false -> global_hooks()
             end,
    lists:foreach(fun({Hook, H, Module, Function, Priority}) ->
                          ejabberd_hooks:delete(Hook, H, Module, Function, Priority)
                  end, hooks(Host) ++ Global).

-spec ejabberd_stopping() -> ok.
ejabberd_stopping() ->
    lists:foreach(fun mod_dmuc_server:quiesce/1,
                  [Host || Host <- ejabberd_option:hosts(), gen_mod:is_loaded(Host, ?MODULE)]).

%%%===================================================================
%%% Commands
%%%===================================================================
-spec commands() -> [#ejabberd_commands{}].
commands() ->
    Pair = fun(Name) -> {Name, {tuple, [{name, string}, {value, string}]}} end,
    [#ejabberd_commands{
        name = dmuc_status, tags = [muc, s2s],
        desc = "List the links of rooms (primary) and of users (replica) of a virtual host",
        module = ?MODULE, function = dmuc_status,
        args = [{host, binary}], args_example = [<<"example.org">>],
        args_desc = ["Virtual host"],
        result = {links, {list, Pair(link)}},
        result_desc = "Room and peer, and the state of the link"},
     #ejabberd_commands{
        name = dmuc_counters, tags = [muc, s2s],
        desc = "Counters of mod_dmuc of a virtual host since it was loaded",
        module = ?MODULE, function = dmuc_counters,
        args = [{host, binary}], args_example = [<<"example.org">>],
        args_desc = ["Virtual host"],
        result = {counters, {list, Pair(counter)}},
        result_desc = "Names and values"}].

-spec dmuc_status(binary()) -> [{binary(), binary()}].
dmuc_status(Host) ->
    #{rooms := Rooms, links := Links} = mod_dmuc_server:status(Host),
    [{<<"primary ", Room/binary, " ", Domain/binary>>, show(Status)}
     || {Room, Domains} <- Rooms, #{domain := Domain} = Status <- Domains] ++
        [{<<"replica ", Room/binary>>, show(Status)} || #{room := Room} = Status <- Links].

-spec dmuc_counters(binary()) -> [{binary(), binary()}].
dmuc_counters(Host) ->
    #{counters := Counters} = mod_dmuc_server:status(Host),
    [{Name, integer_to_binary(Value)} || {Name, Value} <- Counters].

-spec show(map()) -> binary().
show(Status) ->
    Fields = [[atom_to_list(Key), $=, show_value(maps:get(Key, Status))]
              || Key <- [state, epoch, occupants, seq, unacked, reason], is_map_key(Key, Status)],
    iolist_to_binary(lists:join($\s, Fields)).

-spec show_value(binary() | atom() | integer()) -> iodata().
show_value(Value) when is_integer(Value) -> integer_to_list(Value);
show_value(Value) when is_binary(Value) -> Value;
show_value(_) -> "-".

%%%===================================================================
%%% For the other modules
%%%===================================================================

%% The core's clock: monotonic and never negative.
-spec now() -> mod_dmuc_nif:millis().
now() ->
    erlang:convert_time_unit(erlang:monotonic_time() - erlang:system_info(start_time),
                             native, millisecond).

-spec seed() -> non_neg_integer().
seed() ->
    binary:decode_unsigned(crypto:strong_rand_bytes(8)).

%% Each kind of fault is told once with its stack; repetitions at debug.
-spec fault(string(), {atom(), term(), list()}) -> ok.
fault(What, {Class, Reason, Stack}) ->
    Where = case Stack of [{M, F, A, _} | _] when is_integer(A) -> {M, F, A};
                [{M, F, _, _} | _] -> {M, F}; _ -> none end,
    Kind = {What, Class, erlang:phash2({Where, kind(Reason)})},
    Told = persistent_term:get(?FAULTS, []),
    case lists:member(Kind, Told) of
        true ->
            ?DEBUG("mod_dmuc: ~ts, again: ~p:~p", [What, Class, Reason]);
        false ->
            length(Told) < 100 andalso persistent_term:put(?FAULTS, [Kind | Told]),
            ?ERROR_MSG("mod_dmuc: ~ts; stanzas go on without it. "
                       "This is told once:~n** ~ts",
                       [What, misc:format_exception(2, Class, Reason, Stack)])
    end,
    ok.

-spec kind(term()) -> term().
kind(Reason) when is_tuple(Reason) -> element(1, Reason);
kind(Reason) -> Reason.

-spec tell_once(binary()) -> ok.
tell_once(Text) ->
    case persistent_term:get(?TOLD, undefined) of
        Text ->
            ok;
        _ ->
            persistent_term:put(?TOLD, Text),
            ?ERROR_MSG("mod_dmuc is not active, rooms work without it: ~ts", [Text])
    end,
    ok.

%%%===================================================================
%%% Options and documentation
%%%===================================================================
-spec mod_opt_type(atom()) -> econf:validator().
mod_opt_type(Name) ->
    mod_dmuc_opts:type(Name).

-spec mod_options(binary()) -> [{atom(), term()}].
mod_options(_Host) ->
    mod_dmuc_opts:defaults().

-spec mod_doc() -> map().
mod_doc() ->
    #{desc =>
          [<<"Makes the traffic of multi-user chat rooms cross a server-to-server link once "
             "instead of once for each occupant behind it. The server of the room and the "
             "servers of its occupants need this module; with all others everything is as "
             "before. No room has to be configured.">>,
           <<"The module carries the rooms of _`mod_muc`_ of its virtual host (primary) and "
             "accepts what other servers carry for the users of its virtual host "
             "(replica).">>],
      example =>
          ["modules:",
           "  mod_muc: {}",
           "  mod_dmuc:",
           "    min_occupants: 2"],
      opts => mod_dmuc_opts:doc()}.
