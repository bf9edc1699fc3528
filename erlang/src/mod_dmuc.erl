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
-export([dmuc_status/1, dmuc_counters/1, dmuc_links/2, dmuc_table/2]).
%% For the other modules
-export([now/0, seed/0, fault/2]).
-export_type([hook/0]).

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
            _ = code:ensure_modules_loaded([mod_dmuc_opts, mod_dmuc_page, mod_dmuc_primary,
                                            mod_dmuc_replica, mod_dmuc_store, mod_dmuc_xml]),
            case mod_dmuc_server:start(Host, Opts) of
                {ok, Pid} ->
                    ejabberd_commands:register_commands(commands()),
                    {ok, Pid};
                {error, Reason} ->
                    ?ERROR_MSG("mod_dmuc does not start on ~ts, rooms work without it: ~ts",
                               [Host, reason(Reason)]),
                    ok
            end;
        {error, Text} ->
            tell_once(Text),
            %% For who asks why.
            ejabberd_commands:register_commands(commands()),
            ok
    end.

-spec reason(term()) -> iodata().
reason(Text) when is_binary(Text) -> Text;
reason(Reason) -> io_lib:format("~p", [Reason]).

-spec stop(binary()) -> ok.
stop(Host) ->
    case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
        true -> ok;
        false -> ejabberd_commands:unregister_commands(commands())
    end,
    mod_dmuc_server:stop(Host).

%% Links go on; what they agreed on at their set-up stays as it was.
-spec reload(binary(), gen_mod:opts(), gen_mod:opts()) -> ok.
reload(Host, NewOpts, _OldOpts) ->
    case mod_dmuc_server:reload(Host, NewOpts) of
        ok ->
            ok;
        {error, Text} ->
            ?ERROR_MSG("mod_dmuc on ~ts goes on with the options that it had: ~ts", [Host, Text]);
        not_running ->
            _ = start(Host, NewOpts)
    end,
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
     {muc_filter_presence, Host, mod_dmuc_primary, muc_filter_presence, 1},
     %% Before the modules that answer IQs: markers are for us alone.
     {muc_process_iq, Host, mod_dmuc_primary, muc_process_iq, 1},
     {muc_process_iq, Host, mod_dmuc_form, muc_process_iq, 2},
     {get_room_config, Host, mod_dmuc_form, get_room_config, 90},
     {remove_room, Host, mod_dmuc_form, remove_room, 90},
     {room_destroyed, Host, mod_dmuc_form, room_destroyed, 90},
     {leave_room, Host, mod_dmuc_primary, leave_room, 90},
     {room_destroyed, Host, mod_dmuc_primary, room_destroyed, 90},
     %% After the modules that count and before those that judge content.
     {s2s_receive_packet, Host, mod_dmuc_replica, s2s_receive_packet, 30},
     {s2s_send_packet, Host, mod_dmuc_replica, s2s_send_packet, 90},
     {sm_remove_connection_hook, Host, mod_dmuc_replica, sm_remove_connection_hook, 90},
     {s2s_out_closed, Host, mod_dmuc_primary, s2s_out_closed, 110},
     {s2s_out_handle_info, Host, mod_dmuc_primary, s2s_out_handle_info, 50},
     {disco_local_features, Host, mod_dmuc_replica, disco_local_features, 90}
     | mod_dmuc_page:hooks(Host)].

%% Of the node; kept until the last virtual host has gone.
-spec global_hooks() -> [hook()].
global_hooks() ->
    %% After every module that changes or drops stanzas.
    [{filter_packet, global, mod_dmuc_primary, filter_packet, 100},
     %% Streams are still up then, unlike in stop/1.
     {ejabberd_stopping, global, ?MODULE, ejabberd_stopping, 10}
     | mod_dmuc_page:global_hooks()].

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
    Host = {host, binary},
    %% Not `name' and `value': 24.12 fails to write those as JSON.
    Pair = fun(Name) -> {Name, {tuple, [{key, string}, {value, string}]}} end,
    [#ejabberd_commands{
        name = dmuc_status, tags = [muc, s2s],
        desc = "What mod_dmuc does on a virtual host: roles, links, what waits, what was saved",
        module = ?MODULE, function = dmuc_status,
        args = [Host], args_example = [<<"example.org">>], args_desc = ["Virtual host"],
        result = {status, {list, Pair(item)}}, result_desc = "Names and values"},
     #ejabberd_commands{
        name = dmuc_counters, tags = [muc, s2s],
        desc = "Counters of mod_dmuc of a virtual host since it was loaded",
        module = ?MODULE, function = dmuc_counters,
        args = [Host], args_example = [<<"example.org">>], args_desc = ["Virtual host"],
        result = {counters, {list, Pair(counter)}}, result_desc = "Names and values"}
     | [Command || mod_dmuc_nif:check() == ok, Command <- link_commands(Host)]].

%% What there is to say of a link, the core knows.
-spec link_commands({atom(), atom()}) -> [#ejabberd_commands{}].
link_commands(Host) ->
    Columns = [{binary_to_atom(Name, utf8), case Kind of text -> string; number -> integer end}
               || {Name, Kind, _} <- mod_dmuc_nif:columns()],
    Args = [Host, {room, binary}],
    Example = [<<"example.org">>, <<"room@conference.example.org">>],
    Desc = ["Virtual host", "Bare JID of a room, or 'all'"],
    [#ejabberd_commands{
        name = dmuc_links, tags = [muc, s2s],
        desc = "The links of a room or of all, of its own rooms and of its users; "
               "and why there is none",
        module = ?MODULE, function = dmuc_links,
        args = Args, args_example = Example, args_desc = Desc,
        result = {links, {list, {link, {tuple, Columns}}}},
        result_desc = "One for each room and domain"},
     #ejabberd_commands{
        name = dmuc_table, tags = [muc, s2s],
        desc = "The same as dmuc_links as a table for people",
        module = ?MODULE, function = dmuc_table,
        args = Args, args_example = Example, args_desc = Desc,
        result = {table, string}, result_desc = "Lines of text"}].

-spec dmuc_status(binary()) -> [{binary(), binary()}].
dmuc_status(Host) ->
    {Shared, MucHosts, IsReplica} = running(Host, mod_dmuc_server:host(Host)),
    [{<<"primary">>, iolist_to_binary(lists:join(<<" ">>, MucHosts))},
     {<<"replica">>, atom_to_binary(IsReplica, utf8)}
     | mod_dmuc_nif:overview(Shared)].

-spec dmuc_counters(binary()) -> [{binary(), binary()}].
dmuc_counters(Host) ->
    {Shared, _, _} = running(Host, mod_dmuc_server:host(Host)),
    [{Name, integer_to_binary(Value)} || {Name, Value} <- mod_dmuc_nif:counters(Shared)].

-spec dmuc_links(binary(), binary()) -> [tuple()].
dmuc_links(Host, Room) ->
    [list_to_tuple(Row) || Row <- rows(Host, Room)].

-spec dmuc_table(binary(), binary()) -> binary().
dmuc_table(Host, Room) ->
    mod_dmuc_nif:table(rows(Host, Room)).

-spec rows(binary(), binary()) -> [mod_dmuc_nif:row()].
rows(Host, <<"all">>) -> running(Host, mod_dmuc_server:links(Host, all));
rows(Host, Room) -> running(Host, mod_dmuc_server:links(Host, Room)).

%% The answer of a host's process, or why there is none.
-spec running(binary(), T | not_running) -> T.
running(Host, not_running) ->
    Why = case mod_dmuc_nif:check() of
              ok -> <<"it is not loaded there">>;
              {error, Text} -> Text
          end,
    throw({error, lists:flatten(io_lib:format("mod_dmuc is not active on ~ts: ~ts",
                                              [Host, Why]))});
running(_Host, Answer) ->
    Answer.

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
